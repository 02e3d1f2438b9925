"""One runnable file per question: the ladder, findings, and benchmarks. See README.md."""
