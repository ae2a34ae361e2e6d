"""Searching recipes: `space` says what is tried, `trials` tries it, `outcome` says what came out.

Trials are runs in folders of their own, trained by the clean protocol without their test split: what a
sweep compares is validation alone. Optuna chooses and remembers; a trial whose process died goes on.
"""
