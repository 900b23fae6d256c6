"""Fields of other servers that would change the answer, and what leaves it as it is.

They are refused with other values than those, which some clients send in every request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # vLLM
    "allowed_token_ids": (),
    "bad_words": ([],),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logprob_token_ids": (),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "return_tokens_as_token_ids": (False,),
    "skip_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    # llama.cpp
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "mirostat": (0,),
    "post_sampling_probs": (False,),
    "top_n_sigma": (0, -1),
    "typical_p": (1,),
    "xtc_probability": (0,),
    # Of other endpoints
    "best_of": (1,),
    "echo": (False,),
    "top_logprobs": (0,),
}
