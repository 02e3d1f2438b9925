"""A small ARPA file, and an evaluator of ARPA files that only looks up lines."""

import math

ARPA = r"""
\data\
ngram 1=5
ngram 2=4
ngram 3=2

\1-grams:
-1.1	<unk>
0	<s>	-0.4
-0.9	</s>	0
-0.5	a	-0.25
-0.7	b	-0.125

\2-grams:
-0.2	<s> a	-0.3
-0.6	a b	-0.05
-0.3	b a
-0.8	b </s>

\3-grams:
-0.1	<s> a b
-0.15	b a b

\end\
"""


def parse(text):
    """Return {words: (log-probability, backoff)}, both base 10."""
    lines = (line.split("\t") for line in text.splitlines() if "\t" in line)
    return {tuple(words.split(" ")): (float(p), float(rest[0]) if rest else 0.0) for p, words, *rest in lines}


def log_prob(lines, context, word):
    """Return the log-probability of a word after a context, in nats. `lines` is what `parse` returns."""
    total = 0.0
    while (*context, word) not in lines:
        total += lines.get(tuple(context), (0, 0.0))[1]
        context = context[1:]
    found = total + lines[*context, word][0]
    return -math.inf if found <= -99 else found * math.log(10)
