"""The report of one run: one rendering, used as a page of the service and as a file.

A module a section; `run_document` puts them together, `verdict` holds the thresholds, `drawing` and
`scales` draw SVG that keeps its text readable at any width.
"""
