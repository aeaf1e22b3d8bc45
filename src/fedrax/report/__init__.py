"""What runs amount to: figures, tables, an HTML report, and published figures made anew."""
