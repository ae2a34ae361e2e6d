"""Reproduces published tables and studies, and compares our results with the published ones.

`rows` defines the rows of a table (without torch), `perform` trains the missing runs, and `recorded` collects
the results. The folder of a run is a function of everything that decides it, so that the same run is found
again by a repeated command, by a second one at the same time, and by another table.
"""
