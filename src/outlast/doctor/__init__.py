"""What is wrong on this machine before a run, and the fix for each: a table of checks. Reads only."""
