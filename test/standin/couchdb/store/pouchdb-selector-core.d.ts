declare module 'pouchdb-selector-core' {
  /** Whether a Mango selector holds for a document. @throws on an operator that it does not know. */
  export function matchesSelector(doc: object, selector: object): boolean;
}
