"""Reproduces published tables and studies, and compares our results with the published ones.

`rows` defines the rows of a table (without torch), `perform` trains the missing runs, `recorded` collects the
results, `training` is the whole of it, and `reproduction` is what it gives. The folder of a run is a function of
everything that decides it, so that the same run is found again by a repeated command, by a second one at the same
time, and by another table.
"""
