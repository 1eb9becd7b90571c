"""Two operators, of which one acts: whatever happens to it, to the other, and to what lies between."""
