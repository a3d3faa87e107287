"""What only the book needs: running its chapters, drawing its figures, building its site. It is not installed."""
