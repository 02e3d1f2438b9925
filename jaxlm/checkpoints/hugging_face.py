"""Write a model as a folder in the layout of the Hugging Face Hub."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jaxlm._types import Variables
from jaxlm.checkpoints.model_files import MODEL_FILE, save_model
from jaxlm.checkpoints.model_spec import model_to_spec
from jaxlm.models.interface import LanguageModel, num_params
from jaxlm.text.hugging_face import tokenizer_to_hugging_face
from jaxlm.text.tokenizers import Tokenizer
from jaxlm.utils.atomic_files import add_filename, check_absent, expand, make_parents, sync, write_atomically

_CARD = """---
library_name: jaxlm
pipeline_tag: text-generation
tags: [jax]
---

# {name}

A next-token language model: jaxlm's `{class_name}` with {size:,} numbers, a vocabulary of {vocab_size:,} tokens
and a context of {context_length}. `transformers` cannot load it, but `tokenizers` reads its tokenizer.

{figures}
## Use

```bash
jaxlm sample {name} --num-tokens 200
```

```python
import jaxlm

model, variables, tokenizer = jaxlm.load_model("{name}")
```
"""


def write_hugging_face(
    path: str | os.PathLike[str],
    model: LanguageModel,
    variables: Variables,
    tokenizer: Tokenizer,
    *,
    figures: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a folder with `model.safetensors`, `config.json`, `tokenizer.json` and a model card, `README.md`.

    `load_model` opens the folder. Host function; not for use inside `jit`.

    Args:
        tokenizer: a byte or BPE tokenizer.
        figures: rows of a table in the model card, such as the perplexity.
        overwrite: replace existing files.

    Raises:
        OSError: a file exists and `overwrite` is False, or it cannot be written.
        ValueError, TypeError: the tokenizer or the variables cannot be saved.

    >>> import jax, jaxlm, pathlib, tempfile
    >>> model, folder = jaxlm.NeuralBigramLM(256, embedding_dim=2), pathlib.Path(tempfile.mkdtemp(), "bigram")
    >>> write_hugging_face(folder, model, jaxlm.init(model, jax.random.key(0)), jaxlm.ByteTokenizer())
    >>> sorted(path.name for path in folder.iterdir())
    ['README.md', 'config.json', 'model.safetensors', 'tokenizer.json']
    """
    folder = expand(path).resolve()  # "." has no name
    spec = model_to_spec(model)
    sizes = {"vocab_size": spec["vocab_size"], "context_length": spec["context_length"]}
    config = {"model_type": "jaxlm", "architectures": [spec["class"]], **sizes, **spec["fields"]}
    rows = "".join(f"| {name} | {value} |\n" for name, value in (figures or {}).items())
    card = _CARD.format(
        name=folder.name,
        class_name=spec["class"],
        size=num_params(variables),
        figures=f"| | |\n|---|---|\n{rows}" if rows else "",
        **sizes,
    )
    contents = {
        "tokenizer.json": tokenizer_to_hugging_face(tokenizer),
        "config.json": json.dumps(config, indent=2) + "\n",
        "README.md": card,
    }
    for name in (*contents, MODEL_FILE):
        check_absent(folder / name, overwrite=overwrite)
    with (
        make_parents(folder),
        add_filename(folder),
        TemporaryDirectory(prefix=".", dir=folder.parent) as temporary,
    ):
        save_model(temporary, model, variables, tokenizer)
        for name, content in contents.items():
            write_atomically(Path(temporary, name), content)
        folder.mkdir(exist_ok=True)
        for name in (*contents, MODEL_FILE):
            Path(temporary, name).replace(folder / name)
        sync(folder)
