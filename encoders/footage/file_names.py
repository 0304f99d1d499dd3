"""Names of clips and speakers that are made from file names."""


def legible(name: str) -> str:
    """The name with bytes that are no UTF-8 written as %E9: Python holds them as surrogates, which cannot be printed,
    drawn, or written as UTF-8, and safetensors reads no file with such a name. Old disks and archives have names in
    Latin-1.
    """
    return "".join(f"%{ord(c) & 0xFF:02X}" if "\ud800" <= c <= "\udfff" else c for c in name)
