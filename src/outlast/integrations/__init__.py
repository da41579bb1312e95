"""Frameworks and how their saves and resumes are guarded; one module each.

Each works two ways: `install(module)` is called by `outlast run` as the framework's module is imported, and a callback
or plugin is there for people who edit their script.
"""
