declare module 'pouchdb-merge' {
  export type RevNode = [hash: string, status: { status?: string; deleted?: boolean }, children: RevNode[]];
  export type RevTree = { pos: number; ids: RevNode }[];
  export type Leaf = { rev: string; pos: number; opts: { deleted?: boolean } };
  export function merge(
    tree: RevTree,
    path: { pos: number; ids: RevNode },
    depth: number,
  ): { tree: RevTree; stemmedRevs: string[]; conflicts: 'new_leaf' | 'new_branch' | 'internal_node' };
  export function winningRev(metadata: { rev_tree: RevTree }): string;
  export function isDeleted(metadata: { rev_tree: RevTree }, rev?: string): boolean;
  export function collectLeaves(tree: RevTree): Leaf[];
  export function revExists(tree: RevTree, rev: string): boolean;
  export function rootToLeaf(tree: RevTree): { pos: number; ids: { id: string; opts: { status?: string } }[] }[];
}
