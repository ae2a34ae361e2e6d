"""What is wrong with an installation, and the line that mends it; torch is looked at in a process of its own."""

from zoo.cli.doctor.examine import examine
from zoo.cli.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
