"""Private names of other libraries stand in ftlab/internals, and nowhere else in ftlab."""

import ast
import re

import pytest

LIBRARIES = {
    "IPython", "accelerate", "bitsandbytes", "conversion", "convert_hf_to_gguf", "datasets", "datasketch", "evaluate",
    "gguf", "huggingface_hub", "ipykernel", "jupyter_client", "matplotlib", "nbclient", "nbformat", "numpy", "onnx",
    "onnxruntime", "openai", "pandas", "papermill", "peft", "pyarrow", "rich", "safetensors", "scipy", "seaborn",
    "sklearn", "threadpoolctl", "tokenizers", "torch", "tqdm", "transformers", "trl", "xllamacpp",
}  # fmt: skip
# Submodules that the library's own documentation imports from; all other names come from the top of a library.
DOCUMENTED = {
    "IPython.display", "accelerate.utils", "matplotlib.axes", "matplotlib.figure", "matplotlib.patches",
    "matplotlib.pyplot",
    "matplotlib.ticker", "nbclient.exceptions", "onnxruntime.quantization", "pyarrow.compute", "pyarrow.parquet",
    "rich.console", "rich.padding", "rich.progress", "rich.table",
    "rich.text", "safetensors.torch", "torch.nn", "torch.nn.utils.rnn", "torch.utils.data", "tqdm.auto",
    "peft.utils",  # by its __all__ alone; see below
}  # fmt: skip
DOCUMENTED_LIBRARIES = {"scipy", "sklearn"}  # whose names all live in submodules
# Private names that are no library's.
ALLOWED = {
    "_asdict": "documented of named tuples",
    "_replace": "documented of named tuples",
    "_exit": "documented of os",
}
OWN = {
    "ftlab/data/chat.py": {"_written"},  # of another Chat
    "ftlab/inference/generator.py": {"_chat_templates"},  # of the Generator that its class method makes
}
PRIVATE = re.compile(r"_[a-zA-Z]\w*")  # __name__ and its like are the language's


def modules(repository):
    for path in sorted((repository / "ftlab").rglob("*.py")):
        if "internals" not in path.parts:
            yield path.relative_to(repository).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree):
    """Each module that is imported, with the names that are taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, []) for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module, [alias.name for alias in node.names]


def undocumented_imports(tree):
    for line, module, names in imported(tree):
        library = module.partition(".")[0]
        if library not in LIBRARIES:
            continue
        strange = "." in module and module not in DOCUMENTED and library not in DOCUMENTED_LIBRARIES
        if strange or any(map(PRIVATE.fullmatch, [*module.split("."), *names])):
            yield line, f"{module} ({', '.join(names)})"


def foreign_attributes(tree):
    """The private attributes that are read or set, but for a class's own on self or cls."""
    owners = {}
    for kind in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        inside = list(ast.walk(kind))
        own = {node.name for node in inside if isinstance(node, ast.FunctionDef)}
        own |= {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        own |= {node.attr for node in inside if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
        owners |= {id(node): own for node in inside}  # an inner class comes later, and counts
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and PRIVATE.fullmatch(node.attr):
            on_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not (on_self and node.attr in owners.get(id(node), ())):
                yield node.lineno, node.attr
        by_name = isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr", "delattr")
        if by_name and isinstance(node.args[1], ast.Constant) and PRIVATE.fullmatch(str(node.args[1].value)):
            yield node.lineno, node.args[1].value


def test_no_other_room_imports_what_a_library_does_not_document(repository):
    found = [
        f"{path}:{line}: {what}" for path, tree in modules(repository) for line, what in undocumented_imports(tree)
    ]
    assert not found, f"move these into ftlab/internals, with a comment and a test: {found}"


def test_no_other_room_touches_a_private_name_of_something_foreign(repository):
    found = [
        f"{path}:{line}: {name}"
        for path, tree in modules(repository)
        for line, name in foreign_attributes(tree)
        if name not in ALLOWED and name not in OWN.get(path, ())
    ]
    assert not found, f"move these into ftlab/internals, with a comment and a test: {found}"


def test_what_is_taken_from_a_submodule_of_peft_is_in_its_list_of_names(repository):
    from peft import utils

    taken = {
        name for _, tree in modules(repository) for _, module, names in imported(tree) if module == "peft.utils"
        for name in names
    }  # fmt: skip
    assert taken <= set(utils.__all__)


def test_internals_import_nothing_of_ours(repository):
    for path in (repository / "ftlab" / "internals").glob("*.py"):
        for line, module, _ in imported(ast.parse(path.read_text(encoding="utf-8"))):
            assert not module.startswith("ftlab"), f"{path.name}:{line}: {module}"


@pytest.mark.parametrize("library", ["bitsandbytes", "papermill", "peft", "torch", "transformers"])
def test_each_library_has_tests_of_what_breaks_at_its_next_release(repository, library):
    assert (repository / "ftlab" / "internals" / f"{library}.py").is_file()
    assert (repository / "tests" / "internals" / f"test_{library}.py").is_file()


@pytest.mark.parametrize(
    "code",
    [
        "from torch.utils import _python_dispatch", "import torch._dynamo", "from peft.tuners.lora import LoraLayer",
        "from transformers.pytorch_utils import Conv1D",
    ],
)  # fmt: skip
def test_an_undocumented_import_is_found(code):
    assert list(undocumented_imports(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "model._tied", "model.config._attn_implementation = 1", "getattr(model, '_keep_in_fp32_modules', None)",
        "class A(B):\n    def f(self):\n        return self._prepare_inputs()",
    ],
)  # fmt: skip
def test_a_private_name_of_something_foreign_is_found(code):
    assert list(foreign_attributes(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "class A:\n    def f(self):\n        self._own = 1\n        return self._own", "model.__class__",
        "class A:\n    def _g(self): ...\n    def f(self):\n        return self._g()",
    ],
)  # fmt: skip
def test_a_class_may_use_its_own_private_names(code):
    assert not list(foreign_attributes(ast.parse(code)))
