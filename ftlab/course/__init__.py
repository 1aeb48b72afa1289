"""The course itself: profiles, lessons, their claims and their records."""

from ftlab.course.lesson import Lesson, begin

__all__ = ["Lesson", "begin"]
