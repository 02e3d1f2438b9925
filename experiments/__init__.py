"""One runnable file for each question.

They are ladder, course_ladder, pytorch_comparison, jit_comparison, cost_growth and saving_cost.

The others serve those: `jit_*` jit_comparison, `pytorch_*`, and `contest` pytorch_comparison; `streams`
makes up the tokens of all that is timed, and `machine` says what there is to time on.
"""
