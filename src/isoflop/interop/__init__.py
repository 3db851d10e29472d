"""Models and records in and out of the tools that people know.

`exporting` and `importing` write and read folders of Hugging Face's form (`model.peers` has its
names of weights, `config.start` its configurations); `hugging_face` holds the classes of what Llama
and Qwen3 cannot say. The last needs transformers, the others do not.
"""

from isoflop.interop.exporting import Exported, export_run
from isoflop.interop.importing import Imported, import_checkpoint, load_pretrained, parsed_choices
