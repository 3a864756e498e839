"""From operators to instructions: what each costs, what is fused into one scan, what fits into memory."""
