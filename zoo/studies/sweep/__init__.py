"""Searches for better recipe settings.

`space` is what to try, `trials` tries it, `outcome` has the results, and `searching` is the whole of it.

Trials are runs in their own folders, trained with the clean protocol and without a test split, so that a sweep
compares validation accuracy only. Optuna chooses and stores the trials; a trial whose process died is resumed.
"""
