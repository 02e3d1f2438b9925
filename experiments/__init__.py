"""One runnable file for each question; `scripts/experiments` runs them all.

The ladder: `ladder` is the main job, `course_ladder` the same in PyTorch as a course writes it.

What models learn: `counts_vs_neural`, `context_length`, `position`, `vocabulary`, `names`, `known_floor`,
`failure_modes`, and `published`, with the recipes of training in `recipes`.

What it costs: `pytorch_comparison`, `jit_comparison`, `cost_growth`, `saving_cost` and `sweep_cost`.

The others serve those: `jit_*` jit_comparison, `pytorch_*` pytorch_comparison, `contest` what is timed,
`findings` what leaves a picture, `unit_embeddings` names and known_floor; `streams` makes up the tokens of what is
timed, and `machine` says what there is to time on.
"""
