"""Level 1, 2 and 3: exercises to do alone, a recorder of what was done, and a checker that computes it again."""

from ftlab.exercises.exercise import begin as begin
