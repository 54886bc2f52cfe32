"""`headrace demo`: a real stream through the whole system, a live view, and a report that says what happened."""

from headrace.demo.run import Choices as Choices
from headrace.demo.run import run as run
from headrace.demo.stories import STORIES as STORIES
