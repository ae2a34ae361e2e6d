"""Runs beside one another: facts from run folders, one page, pictures.

Nothing here imports torch but `measure` and `gather`.
"""
