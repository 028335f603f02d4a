"""Results: under which key they are found again, in which form and where they are kept."""
