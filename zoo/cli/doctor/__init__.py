"""What is wrong with an installation, and the line that mends it; torch is looked at in a process of its own."""
