"""Renders a run for a terminal, as an HTML page, and as a Mermaid flowchart.

The functions are pure: they turn a `RunSnapshot` and the current time into text. Values of a run
are shown as text, and are never interpreted as markup or terminal control.
"""
