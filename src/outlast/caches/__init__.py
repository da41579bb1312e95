"""Caches that ML tools leave behind: which there are, where each should live, what can be freed and in what order.

`catalogue` is data, `layout` and `sweep` decide, `clear` and `migrate` act.
"""
