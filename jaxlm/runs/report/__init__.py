"""Present the results of a run: tables, plots and an HTML page."""
