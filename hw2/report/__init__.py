"""What readers see: figures, tables, report.md."""
