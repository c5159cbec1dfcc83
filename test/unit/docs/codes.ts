import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type EcmaScriptModule, parseSync, Visitor } from 'oxc-parser';

/** Where in the source a code stands that an operator may read. */
export interface CodeSeen {
  readonly code: string;
  readonly file: string;
  readonly line: number;
  /** The source text around it: message and next step, for whoever writes the documentation. */
  readonly text: string;
}

/** Errors that operators read, and at which place of their constructor the code stands. */
const ERRORS: Readonly<Record<string, number>> = {
  OperatorError: 0,
  CliFailure: 1,
  TransportError: 0,
  AppConfigError: 0,
};
/** Callbacks of our types, which a file calls without an import of the type: their name, and the place of `code`. */
const CALLBACKS: ReadonlyMap<string, number> = new Map([['onNote', 0]]);
/** Codes are kebab-case words; what Node.js itself throws (ENOSPC) and numbers are not ours. */
const CODE = /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/;

interface Expression {
  readonly type: string;
  readonly start: number;
  readonly end: number;
}

/**
 * Every code in one file: those given to an operator's error, those in an object that also names the next step (or is
 * given to IdentityError or PluginError), those given to a function of ours that has a parameter `code`, or to a
 * callback whose type has one, and the constant code of a class.
 */
export function codesIn(
  root: string,
  file: string,
  text = readFileSync(join(root, file), 'utf8'),
): CodeSeen[] {
  const { program, module } = parseSync(file, text);
  const makers = new Map([...CALLBACKS, ...importedMakers(root, file, module), ...makersIn(program)]);
  const found: CodeSeen[] = [];
  const add = (node: Expression | undefined, whole: Expression): void => {
    for (const code of literalsOf(node)) {
      const line = text.slice(0, whole.start).split('\n').length;
      if (CODE.test(code)) found.push({ code, file, line, text: text.slice(whole.start, whole.end) });
    }
  };
  const onCall = (node: Expression & { callee: Expression; arguments: readonly Expression[] }): void => {
    const name = nameOf(node.callee);
    const at = name === undefined ? undefined : (ERRORS[name] ?? makers.get(name));
    if (at !== undefined) add(node.arguments[at], node);
  };
  new Visitor({
    NewExpression: onCall,
    CallExpression: onCall,
    PropertyDefinition: (node) => {
      if (nameOf(node.key) === 'code') add(node.value ?? undefined, node);
    },
    ObjectExpression: (node) => {
      const keys = node.properties.map((each) => (each.type === 'Property' ? nameOf(each.key) : '...'));
      const code = node.properties.find((each) => each.type === 'Property' && nameOf(each.key) === 'code');
      // A spread may bring the next step from elsewhere.
      if (
        code?.type === 'Property' &&
        ['next', 'detail', 'outcome', '...'].some((each) => keys.includes(each))
      )
        add(code.value, node);
    },
  }).visit(program);
  return found;
}

export function codesUnder(root: string, files: readonly string[]): CodeSeen[] {
  return files.flatMap((file) => codesIn(root, file));
}

/** Functions with a parameter `code` that the file imports from another file of ours. */
function importedMakers(root: string, file: string, module: EcmaScriptModule): Map<string, number> {
  const imported = module.staticImports.filter((each) => each.moduleRequest.value.startsWith('.'));
  return new Map(
    imported.flatMap(({ moduleRequest, entries }) => {
      const target = join(root, dirname(file), moduleRequest.value);
      // The refusals of the wire are reasons inside other messages, never a code of their own.
      if (!target.endsWith('.ts') || target.includes('/wire/')) return [];
      const makers = makersIn(parseSync(target, readFileSync(target, 'utf8')).program);
      return entries.flatMap(({ importName, localName }) => {
        const at = makers.get(importName.name ?? '');
        return at === undefined ? [] : [[localName.value, at] as const];
      });
    }),
  );
}

/** Functions of the file with a parameter named `code`, and its place. */
function makersIn(program: Parameters<Visitor['visit']>[0]): Map<string, number> {
  const makers = new Map<string, number>();
  const learn = (name: string | undefined, params: readonly unknown[]): void => {
    const at = params.findIndex((each) => nameOf(each) === 'code');
    if (name !== undefined && at >= 0) makers.set(name, at);
  };
  new Visitor({
    FunctionDeclaration: (node) => learn(node.id?.name, node.params),
    VariableDeclarator: (node) => {
      if (node.init?.type === 'ArrowFunctionExpression') learn(nameOf(node.id), node.init.params);
    },
    MethodDefinition: (node) => learn(nameOf(node.key), node.value.params),
  }).visit(program);
  return makers;
}

/** The name that an identifier, a key or the last part of a member expression carries. */
function nameOf(node: unknown): string | undefined {
  const { type, name, property } = node as { type: string; name?: string; property?: unknown };
  if (type === 'Identifier' || type === 'PrivateIdentifier') return name;
  return type === 'MemberExpression' ? nameOf(property) : undefined;
}

/** The strings that an expression may be: a literal, or either side of `a ? 'x' : 'y'`. */
function literalsOf(node: Expression | undefined): string[] {
  if (node === undefined) return [];
  const { type, value, consequent, alternate } = node as Expression & {
    value?: unknown;
    consequent?: Expression;
    alternate?: Expression;
  };
  if (type === 'Literal' && typeof value === 'string') return [value];
  return type === 'ConditionalExpression' ? [...literalsOf(consequent), ...literalsOf(alternate)] : [];
}
