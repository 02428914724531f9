"""Nodes for ComfyUI: the guidance rules of cfg_course. See README.md in this folder.

Everything is read from the register of rules: their names, papers and formulas, their options with bounds and defaults.
`Guidance rule` has all of them in one list; beside it each rule with options has a node of its own, with a widget for each.
"""
import inspect, re

from cfg_course.catalogue import SHELVES
from cfg_course.cli import read_literal
from cfg_course.comfy import to_comfy
from cfg_course.core import InputError
from cfg_course.guidance import Method, make_method, method_options

CATEGORY = 'advanced/guidance'
RULES = {name: method for name, method in SHELVES['rule'].items() if 'asks again' not in method.traits}

SCALE = ('FLOAT', dict(default=0., min=-100., max=100., step=.1, round=False,
    tooltip='Guidance scale s: 1 is no guidance. 0 takes the cfg of the sampler.'))
TWICE = ('BOOLEAN', dict(default=False,
    tooltip='On for samplers that ask twice within a step (heun, dpm_2): then rules that remember count steps, not questions.'))
OPTIONS = ('STRING', dict(default='', multiline=False,
    tooltip='Options of the rule, such as: eta=0.2 momentum=-0.5. Nothing: those of its paper. Each rule has a node with widgets, too.'))


def bound(
    words:str, # what an option takes, such as 'a finite number >= 0 and <= 1'
    signs:str, # of the bound
    otherwise:float, # where there is none
)->float: # the bound
    "A bound of an option."
    found = re.search(rf'(?:^| )(?:{signs}) (-?[\d.]+(?:e-?\d+)?)', words)
    return float(found[1]) if found else otherwise


def comment_on(
    method:Method, # of the register
    option:str, # of its options
)->str: # nothing where there is none
    "What stands behind a parameter where the rule is defined."
    source = inspect.getsource(inspect.unwrap(method.make))
    found = re.search(rf'^\s+{option}:.*? # (.*)$', source, re.M)
    return found[1] if found else ''


def number_widget(
    default:float, # of the option
    words:str, # what it takes
)->tuple: # as ComfyUI describes an input
    "A number with its bounds: ComfyUI wants some on both sides."
    low, high = bound(words, '>=?', -1e4), bound(words, '<=?', 1e4)
    if isinstance(default, int):
        return 'INT', dict(default=default, min=int(low), max=int(high), step=1)
    return 'FLOAT', dict(default=default, min=low, max=high, step=.001, round=False)


def widget(
    method:Method, # of the register
    option:str, # of its options
)->tuple: # as ComfyUI describes an input
    "What stands for an option in a node."
    default, words = method_options(method)[option], method.options[option].allowed
    if isinstance(default, bool):
        kind, about = 'BOOLEAN', dict(default=default)
    elif isinstance(default, (int, float)):
        kind, about = number_widget(default, words)
    elif isinstance(default, str):
        kind, about = words.split(', '), dict(default=default)
    else:
        kind, about = 'STRING', dict(default=repr(default).lower())
    return kind, dict(about, tooltip=f'{comment_on(method, option)} ({words})'.strip())


def describe(
    name:str, # of a rule
)->str: # for people
    "A rule in words: full name, paper, formula, and what it needs."
    method = RULES[name]
    needs = f' Needs {method.needs}: most models of ComfyUI work on latents.' if 'pixels' in method.needs else ''
    return f'{name}: {method.title} ({method.paper}). {method.formula}.{needs}'


def read_options(
    text:str, # such as 'eta=0.2 momentum=-0.5'
)->dict: # option -> value
    "Options as they are typed, with blanks or semicolons between them."
    pairs = [part.partition('=') for part in re.split(r'[\s;]+(?=\w+=)', text.strip()) if part]
    for key, equals, _ in pairs:
        if not (key.isidentifier() and equals):
            raise InputError(f'options: got {key!r}, allowed: KEY=VALUE, with blanks between them')
    return {key: read_literal(value.strip(' ;,')) for key, _, value in pairs}


def patch(
    model, # ComfyUI's
    rule:str, # its name
    scale:float, # guidance scale, or 0
    twice:bool, # does the sampler ask twice?
    options:dict, # of the rule
)->tuple: # the model with the rule
    "A copy of a model that is guided by a rule."
    made = make_method(RULES, rule, **options)
    function = to_comfy(made, scale or None, 1 + twice)
    copy = model.clone()
    copy.set_model_sampler_cfg_function(function, disable_cfg1_optimization=bool(scale))
    return (copy,)


class Node:
    "What the nodes have in common."
    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, 'patch', ('MODEL',)
    OUTPUT_TOOLTIPS = ('The model, guided by the rule.',)


class GuidanceRule(Node):
    "All rules in one list."
    DESCRIPTION = 'Guides by a rule of cfg_course.\n\n' + '\n\n'.join(map(describe, RULES))

    @classmethod
    def INPUT_TYPES(cls):
        about = dict(default='cfg', tooltip='How the two predictions are combined; hover over the title for papers and formulas.')
        model = ('MODEL', dict(tooltip='The model that is guided.'))
        return dict(required=dict(model=model, rule=(list(RULES), about), scale=SCALE),
                    optional=dict(asks_twice=TWICE, options=OPTIONS))

    @classmethod
    def VALIDATE_INPUTS(cls, rule, options=''):
        try:
            make_method(RULES, rule, **read_options(options or ''))
        except InputError as e:
            return str(e)
        return True

    def patch(self, model, rule, scale=0., asks_twice=False, options=''):
        return patch(model, rule, scale, asks_twice, read_options(options))


def node_of(
    name:str, # of a rule with options
)->type: # a node
    "A node for one rule, with a widget for each option."
    method = RULES[name]
    strings = [o for o in method.options if widget(method, o)[0] == 'STRING']

    def options_of(given):
        return {o: read_literal(value) if o in strings else value for o, value in given.items()}

    class RuleNode(Node):
        DESCRIPTION = describe(name)

        @classmethod
        def INPUT_TYPES(cls):
            model = ('MODEL', dict(tooltip='The model that is guided.'))
            widgets = {o: widget(method, o) for o in method.options}
            return dict(required=dict(model=model, scale=SCALE, asks_twice=TWICE, **widgets))

        @classmethod
        def VALIDATE_INPUTS(cls, **given):
            try:
                make_method(RULES, name, **options_of({o: given[o] for o in method.options if o in given}))
            except InputError as e:
                return str(e)
            return True

        def patch(self, model, scale, asks_twice, **options):
            return patch(model, name, scale, asks_twice, options_of(options))

    return RuleNode


OWN = {f'CfgCourse_{name}': name for name, method in RULES.items() if method.options}

NODE_CLASS_MAPPINGS = dict(CfgCourseRule=GuidanceRule) | {key: node_of(name) for key, name in OWN.items()}
NODE_DISPLAY_NAME_MAPPINGS = dict(CfgCourseRule='Guidance rule') | {
    key: f'Guidance: {RULES[name].title}' for key, name in OWN.items()}
