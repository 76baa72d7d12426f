"""Pieces of patterns: what a reply puts in the place of an answer. "Actually, it's 6", "sorry, B", "Edit: Rome"."""

IT_IS = (
    r"(?:so\s|then\s)?(?:(?:it|that|this)(?:['’]s|\s(?:is|should\sbe|must\sbe|would\sbe|equals))"
    r"|(?:the|my)\s(?:correct\s|right\s|new\s)?answer\s(?:is|should\sbe|must\sbe))(?:\sactually)?"
)
VALUE = (
    r"(?:\$[^$\n]{1,80}\$|[$(*\\\[]{0,4}(?:[-−]?[$€£]?\d|boxed|d?frac|(?-i:(?:[B-HJ]|[AI](?!\s[a-z]))(?![^\W_]))))"  # 6  $6$  (B)
)
NAME = r"(?-i:[A-Z])[^\s.]{0,30}(?:\s[^\s.]{1,30}){0,2}[.!)]?\s*(?:\n|\Z)"  # Rome.
SAYS = (
    r"[^.!?;\n]{0,40}?\s(?:is|are|was|were|has|have|had|does|do|did|also|steps?|would|could|might)(?![^\W_])"  # 3 steps were needed
)
CLEFT = r"\S{0,20}\s(?:that|who|which|lines?|steps?|times)(?![^\W_])"  # it is A that is tempting
