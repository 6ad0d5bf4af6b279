"""How well does placement pack, beside the other schedulers' formulas, on traces and mixes?"""
