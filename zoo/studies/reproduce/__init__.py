"""The sources' tables and studies, trained here and printed beside theirs.

`rows` says what a table consists of (no torch), `perform` trains what is missing, `table` gathers what
is recorded. A run's folder is a function of everything that decides it, so that a run is found again
by whoever asks for the same one: an interrupted command, a second one at the same time, another table.
"""
