"""Groups -> packed rows: [prompt | completion 1 | ... | completion G], the prompt and its image once.

Shapes: as in types.PackedBatch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from geogrpo.types import EncodedPrompt, PackedBatch


@dataclass(frozen=True)
class Group:
    """A prompt and its completions' tokens, each (length,) int64 with length >= 1."""

    prompt: EncodedPrompt
    completions: list[Tensor]

    @property
    def num_unique_tokens(self) -> int:
        """Tokens this group adds to a row."""
        return len(self.prompt.token_ids) + sum(len(completion) - 1 for completion in self.completions)


def mrope_position_ids(token_ids: Tensor, image_grid_thw: Tensor, image_token_id: int, merge_size: int) -> Tensor:
    """Rotary positions of a prompt: (K,) tokens -> (3, K) int64 time, height, width.

    Text counts on in all three. An image's tokens share one time and count rows and columns from it; what follows
    starts after the largest position used. Source: Qwen2-VL, arXiv 2409.12191, section 2.1.

    Raises:
        ValueError: when the placeholders do not match the images' grids.
    """
    grids = iter((image_grid_thw // torch.tensor([1, merge_size, merge_size])).tolist())
    num_images = len(image_grid_thw)
    pieces, position, k, seen = [], 0, 0, 0
    is_image = (token_ids == image_token_id).tolist()
    while k < len(is_image):
        if not is_image[k]:
            pieces.append(torch.full((3, 1), position))
            position, k = position + 1, k + 1
            continue
        seen += 1
        if seen > num_images:
            raise ValueError(f"the prompt has image placeholders for more than its {num_images} images.")
        time, height, width = next(grids)
        size = time * height * width
        if not all(is_image[k : k + size]) or k + size > len(is_image):
            raise ValueError(f"image {seen} needs {size} placeholder tokens in a row.")
        pieces.append(torch.stack([axis.flatten() for axis in _grid_axes(time, height, width)]) + position)
        position, k = position + max(time, height, width), k + size
    if seen != num_images:
        raise ValueError(f"the prompt has placeholders for {seen} images, got {num_images}.")
    return torch.cat(pieces, dim=1)


def _grid_axes(time: int, height: int, width: int) -> tuple[Tensor, ...]:
    return torch.meshgrid(torch.arange(time), torch.arange(height), torch.arange(width), indexing="ij")


def pack(groups: Sequence[Group]) -> PackedBatch:
    """One row of whole groups. Groups may have any number of completions, also none.

    Raises:
        ValueError: when there is no group or a completion is empty.
    """
    if not groups:
        raise ValueError("pack needs at least one group.")
    tokens, positions, score_index, targets, target_completion, completion_prompt = [], [], [], [], [], []
    row = num_completions = 0
    for prompt_id, group in enumerate(groups):
        prompt = group.prompt
        tokens.append(prompt.token_ids)
        positions.append(prompt.position_ids)
        row += len(prompt.token_ids)
        last_of_prompt = row - 1
        for completion in group.completions:
            length = len(completion)
            if length == 0:
                raise ValueError(f"a completion of example {prompt.example.id!r} has no tokens.")
            tokens.append(completion[:-1])
            positions.append((prompt.next_position + torch.arange(length - 1)).expand(3, -1))
            # The prompt's last token predicts the first token of every completion.
            score_index.append(torch.cat([torch.tensor([last_of_prompt]), row + torch.arange(length - 1)]))
            targets.append(completion)
            target_completion.append(torch.full((length,), num_completions))
            completion_prompt.append(prompt_id)
            row, num_completions = row + length - 1, num_completions + 1
    empty = [torch.zeros(0, dtype=torch.int64)]
    return PackedBatch(
        input_ids=torch.cat(tokens),
        position_ids=torch.cat(positions, dim=1),
        pixel_values=torch.cat([group.prompt.pixel_values for group in groups]),
        image_grid_thw=torch.cat([group.prompt.image_grid_thw for group in groups]),
        prompt_lengths=torch.tensor([len(group.prompt.token_ids) for group in groups]),
        completion_lengths=torch.tensor([len(c) - 1 for group in groups for c in group.completions], dtype=torch.int64),
        completion_prompt=torch.tensor(completion_prompt, dtype=torch.int64),
        score_index=torch.cat(score_index or empty),
        target_ids=torch.cat(targets or empty),
        target_completion=torch.cat(target_completion or empty),
        image_keys=tuple(group.prompt.image_key for group in groups if group.prompt.image_key is not None),
    )


HOST_FIELDS = ("prompt_lengths", "completion_lengths", "completion_prompt", "image_keys")


def to_device(batch: PackedBatch, device: torch.device, *, with_pixels: bool = True) -> PackedBatch:
    """The batch with its device tensors moved; lengths stay on the host, where layouts are planned."""
    left = HOST_FIELDS if with_pixels else (*HOST_FIELDS, "pixel_values")
    names = [field.name for field in fields(batch) if field.name not in left]
    return replace(batch, **{name: getattr(batch, name).to(device, non_blocking=True) for name in names})


class RowTooLong(ValueError):
    """A prompt with one completion that is longer than a row may be."""


@dataclass(frozen=True)
class Row:
    """What is packed together, and which of all groups' completions these are, counted through."""

    groups: list[Group]
    completions: list[int]


def split_into_rows(groups: Sequence[Group], max_tokens: int) -> list[Row]:
    """Rows of whole groups within max_tokens unique tokens each, as many as filling one after another takes, and about
    equally long.

    A group that alone is larger is split between its completions, its prompt in each part: the sum over the rows is
    the same, for the prompt's tokens once more per part.

    Raises:
        RowTooLong: naming the example, when its prompt and longest completion alone are larger.
    """
    pieces: list[tuple[Group, list[int]]] = []
    first = 0
    for group in groups:
        for part in _parts(group, max_tokens):
            piece = Group(group.prompt, [group.completions[k] for k in part])
            pieces.append((piece, [first + k for k in part]))
        first += len(group.completions)
    sizes = [piece.num_unique_tokens for piece, _ in pieces]
    return [
        Row([pieces[k][0] for k in row], [c for k in row for c in pieces[k][1]])
        for row in _balanced(sizes, split_by_budget([piece for piece, _ in pieces], max_tokens), max_tokens)
    ]


def _parts(group: Group, max_tokens: int) -> list[list[int]]:
    """Which completions go together, so that each part with the prompt fits."""
    lengths = [len(completion) - 1 for completion in group.completions]
    if group.num_unique_tokens <= max_tokens:
        return [list(range(len(lengths)))]
    check_row(group.prompt, max(lengths, default=0), max_tokens)
    room = max_tokens - len(group.prompt.token_ids)
    parts: list[list[int]] = []
    used = 0
    for k, length in enumerate(lengths):
        if not parts or used + length > room:
            parts.append([])
            used = 0
        parts[-1].append(k)
        used += length
    return parts


def check_row(prompt: EncodedPrompt, longest: int, max_tokens: int) -> None:
    """Raise RowTooLong, naming the example, when its prompt and `longest` more tokens are more than max_tokens."""
    least = len(prompt.token_ids) + longest
    if least > max_tokens:
        raise RowTooLong(
            f"example {prompt.example.id!r}: its prompt and longest completion are {least:,} tokens, and"
            f" tokens_per_microbatch is {max_tokens:,}. Set it to at least {least:,}, or lower model.max_pixels."
        )


def _balanced(sizes: list[int], rows: list[list[int]], max_tokens: int) -> list[list[int]]:
    """As many rows, more equally filled where that keeps them within the budget: the largest goes to the emptiest."""
    filled: list[list[int]] = [[] for _ in rows]
    used = [0] * len(rows)
    for k in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
        emptiest = used.index(min(used))
        filled[emptiest].append(k)
        used[emptiest] += sizes[k]
    return [sorted(row) for row in filled] if max(used, default=0) <= max_tokens else rows


def split_by_budget(groups: Sequence[Group], max_tokens: int) -> list[list[int]]:
    """Indices of the groups of each packed row, in order: as many as fit into max_tokens unique tokens, or one."""
    rows: list[list[int]] = []
    used = 0
    for i, group in enumerate(groups):
        if not rows or used + group.num_unique_tokens > max_tokens:
            rows.append([])
            used = 0
        rows[-1].append(i)
        used += group.num_unique_tokens
    return rows
