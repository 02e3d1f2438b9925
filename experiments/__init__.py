"""One runnable file for each question: ladder, jit_comparison, pytorch_comparison, cost_growth.

The others serve those: `jit_*` jit_comparison; `pytorch_*`, `contest` and `sweep` pytorch_comparison; `streams`
makes up tokens for both and for cost_growth.
"""
