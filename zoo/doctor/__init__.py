"""What is wrong with an installation, and the line that mends it; torch is looked at in a process of its own."""

from zoo.doctor.examine import examine
from zoo.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
