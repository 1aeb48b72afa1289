"""Private names of transformers: attention, initial weights, tied weights, quantized layers, Trainer's batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

# To be held while a model is loaded or built. `from_pretrained` replaces `PreTrainedModel.tie_weights` by an empty
# function and puts it back; of two threads that do so at once, one puts the empty function back, and from then on no
# model of the process has tied weights.
LOADING = threading.RLock()
CONFIG_PATH = "_name_or_path"  # the key of `config.to_dict()` under which the folder or name of the model is kept


def attention(model: Any) -> str:
    """Return the name of the attention implementation that `model` uses: "sdpa", "eager" or another one."""
    return model.config._attn_implementation  # `set_attn_implementation` is public, and there is no public getter


def draw_weights(model: Any, modules: Iterable[Any]) -> None:
    """Draw the weights of `modules`, which are part of `model`, at random by the rule of its architecture.

    `init_weights` and `initialize_weights`, the public ways, do this for the whole model. A parameter that is marked as
    loaded is left as it is, so the mark is taken away first.
    """
    import torch

    with torch.no_grad():
        for module in modules:
            for tensor in module.parameters(recurse=False):
                tensor._is_hf_initialized = False
            model._init_weights(module)


def tied_weights(model: Any) -> dict[str, str]:
    """Return the tensors of `model` that are one with another tensor, by name: {tied tensor: its source}.

    Undocumented: the public `tie_weights` ties tensors and does not say which.
    """
    return dict(model.all_tied_weights_keys)


def tied_but_apart(model: Any) -> set[str]:
    """Return the names of the tensors that the config of `model` ties and that loading left apart.

    `from_pretrained` takes a pair out of `all_tied_weights_keys` when the files hold two different tensors; what the
    config asks for has no public name.
    """
    return model.get_expanded_tied_weights_keys(all_submodels=True).keys() - model.all_tied_weights_keys.keys()


def is_converted(model: Any) -> Callable[[str], bool]:
    """Return a function that says of a linear layer of `model`, by its name, whether loading in few bits converts it.

    The rule of `from_pretrained` with a quantization config, which has no public name: the head, what is tied, and the
    modules that an architecture keeps in fp32 stay as they are.
    """
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    spared = [*get_keys_to_not_convert(model), *(getattr(model, "_keep_in_fp32_modules", None) or ())]
    return lambda name: should_convert_module(name, spared)


def was_conv1d(layer: Any) -> bool:
    """Return whether the quantized `layer` was a Conv1D, which stores its weight as (in, out), before loading.

    transformers notes the class that a layer had before quantization in an undocumented attribute.
    """
    return getattr(layer, "source_cls", None) is not None and layer.source_cls.__name__ == "Conv1D"


def prepared_inputs(trainer: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of `inputs` on the device of `trainer`, as Trainer prepares it for each step.

    Trainer's own `prediction_step` calls this. Whoever overrides that public method has no public name for it.
    """
    return trainer._prepare_inputs(inputs)


def load_models_whole() -> None:
    """Forget the DeepSpeed configuration of a training: as long as it is kept, each model that is loaded is sharded.

    Undocumented. The configuration ends with Trainer's arguments, to which the caller still refers.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def layers_to_shard(model: Any) -> list[str]:
    """Return the classes of layers of `model` that FSDP shards each by itself, as transformers names them.

    Without those that hold the input embeddings, as BERT's do: accelerate shards the embeddings once more, and fails.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    embeddings = model.get_input_embeddings()
    around = {
        type(module).__name__ for module in model.modules() if any(part is embeddings for part in module.modules())
    }
    return sorted({*(model._no_split_modules or ())} - around)


def in_one_order(kind: type[Any]) -> type[Any]:
    """Return `kind`, a class of Trainer, whose steps have the rows that they have in one process.

    In several processes of one training, Trainer groups rows of like length by the batch of one process, each process
    draws its own order, from random numbers of which each has used its own share, and accelerate fills up the last
    batch with rows that were there before. Here the main process draws the order by the batch of all of them, and the
    others take it over. Of the last step's rows, the processes get equal shares, up to one row; one that gets none
    takes the last row of the data set, which is there for that.

    This is for rows that are grouped by length (`train_sampling_strategy`). Trainer has no public name for "the sampler
    of the training rows", and leaves one alone (it shards no further) only if it is a BatchRebalanceSampler.

    Args:
        kind: Trainer, or a subclass that does not choose a sampler itself. Its training rows end with the one that
            is nobody's.
    """
    from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler

    class Shares(BatchRebalanceSampler):
        """The batches of this process: its shares of the rows of each step."""

        batch_size = None  # it varies; accelerate asks

        def __init__(self, lengths: Sequence[int], of: Any) -> None:
            self.rank, self.pieces = of.process_index, of.gradient_accumulation_steps
            self.shares = of.world_size * self.pieces
            self.rows_of_step = of.train_batch_size * self.shares
            self.epoch, self.nobody = 0, len(lengths)
            self.order = LengthGroupedSampler(self.rows_of_step, lengths=list(lengths))

        def __iter__(self) -> Any:
            from accelerate.utils import broadcast_object_list

            drawn = [list(self.order) if self.rank == 0 else None]
            for step in steps_of(broadcast_object_list(drawn)[0], self.rows_of_step):
                for piece in range(self.pieces):
                    yield step[self.rank * self.pieces + piece :: self.shares] or [self.nobody]

        def __len__(self) -> int:
            return len(steps_of(range(len(self.order)), self.rows_of_step)) * self.pieces

    class InOneOrder(kind):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            if self.args.world_size == 1:
                return super()._get_train_sampler(train_dataset)
            rows = self.train_dataset if train_dataset is None else train_dataset
            return Shares([len(ids) for ids in rows["input_ids"]][:-1], self.args)

    InOneOrder.__name__ = kind.__name__
    return InOneOrder


def evaluation_order(trainer: Any, rows: Any, batch_size: int) -> list[int]:
    """Return the places of `rows` in the order in which one process of `trainer` evaluates them.

    It is that of Trainer's own sampler of the evaluation rows, which has no public name.

    Args:
        trainer: a Trainer.
        rows: with input_ids.
        batch_size: rows at a time.
    """
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    if trainer.args.train_sampling_strategy != "group_by_length":
        return list(range(len(rows)))
    seed = trainer.args.seed if trainer.args.data_seed is None else trainer.args.data_seed
    lengths = [len(ids) for ids in rows["input_ids"]]
    return list(LengthGroupedSampler(batch_size, lengths=lengths, generator=torch.Generator().manual_seed(seed)))


def evaluation_batches(trainer: Any, rows: Any, places: Sequence[Sequence[int]]) -> Iterable[Any]:
    """Return the batches of `rows` at `places`, collated as `trainer` does, without the columns that it leaves out."""
    from torch.utils.data import DataLoader

    return DataLoader(trainer._remove_unused_columns(rows), batch_sampler=places, collate_fn=trainer.data_collator)


def steps_of(rows: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Return `rows` cut into the rows of each step, in order: `size` of them, and what is left at the end.

    >>> steps_of([1, 2, 3, 4, 5, 6, 7], size=4)
    [[1, 2, 3, 4], [5, 6, 7]]
    """
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def decayed_parameters(model: Any) -> set[str]:
    """Return the names of the parameters of `model` that get weight decay in Trainer: no biases, no normalisations.

    The method belongs to Trainer and does not use it. Called without a Trainer, it is an undocumented use.
    """
    from transformers import Trainer

    nobody: Any = None
    return set(Trainer.get_decay_parameter_names(nobody, model))


def was_told_to_stop(state: Mapping[str, Any]) -> bool:
    """Return whether a callback had ended the training of `state`, the content of a trainer_state.json.

    The file holds Trainer's control under its states of callbacks; that place is not documented.
    """
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {}).get("args", {})
    return bool(control.get("should_training_stop"))
