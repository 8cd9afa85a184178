"""What make runs and nothing imports: executing the notebooks, setting the PDF.

Measuring speeds.
"""
