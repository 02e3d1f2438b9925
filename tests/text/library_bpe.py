"""Byte-level BPE by the `tokenizers` library alone, to compare with."""

from tokenizers import Tokenizer, models, pre_tokenizers, trainers


def library_bpe(text, vocab_size):
    """Train on the whole text, in one piece."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator([text], trainer)
    return library
