"""What the units of `mini` represent, measured on images whose attributes are known."""
