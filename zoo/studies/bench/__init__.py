"""How fast a model trains and infers here, what it needs, and what the loop adds to its bare step.

What decides speed (precision, memory layout, compiler, optimizer, augmentation) comes from the plan of a
training, and the end-to-end number is that of the real `Trainer`.
"""
