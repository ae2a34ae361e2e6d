"""Checks of an installation: what is wrong, and how to fix it. torch is checked in a process of its own."""
