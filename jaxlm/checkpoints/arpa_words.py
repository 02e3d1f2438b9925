"""Spell tokens as the words of an ARPA file, which contain no whitespace."""

from jaxlm.text.bpe import CHARACTERS
from jaxlm.text.tokenizers import Tokenizer

PLACEHOLDERS = "-99\t<unk>", "-99\t<s>", "-99\t</s>"  # 1-grams that KenLM requires
_SPECIAL_WORDS = {"<unk>", "<UNK>", "<s>", "</s>"}


def spell_tokens(vocab_size: int, tokenizer: Tokenizer | None) -> list[str]:
    """Return a different word for each id, without whitespace, and never a special word.

    Each byte of a token is a character of GPT-2's alphabet: " the" is "Ġthe". A token that would be a special word
    starts with "⟨", which is not in this alphabet: "⟨s>". So does an id without a token, as in a padded
    vocabulary: "⟨300>". Without a tokenizer, an id is its decimal digits.
    """
    if tokenizer is None:
        return [str(token) for token in range(vocab_size)]
    if tokenizer.vocab_size > vocab_size:
        sizes = f"{tokenizer.vocab_size} tokens, more than the model's vocab_size={vocab_size}"
        raise ValueError(f"the tokenizer has {sizes}; pass the one of the model")
    words = []
    for token in range(tokenizer.vocab_size):
        word = "".join(CHARACTERS[byte] for byte in tokenizer.decode_bytes([token]))
        words.append("⟨" + word[1:] if word in _SPECIAL_WORDS else word)
    return words + [f"⟨{token}>" for token in range(tokenizer.vocab_size, vocab_size)]
