"""Pictures of a run: for a terminal, for a browser, and as a Mermaid graph.

They are pure: from a `RunSnapshot` and the present moment to text. What is in a state is
shown as text and never acts on what shows it.
"""
