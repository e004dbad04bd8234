# SPDX-License-Identifier: MIT
# What Doxygen reads instead of a header or a page of docs/: the same lines, put so that it understands them.

# The inline namespace that names the compiler's flags: the pages show what it holds where users find it.
s,^(inline namespace BATCHNORM_KERNELS \{|\}  // namespace BATCHNORM_KERNELS)$,,

# Formulas and tables of arguments stand two columns further right than the text; Markdown takes from four on as they are.
s,^( *///)(   +[^ *]),\1  \2,

# Links to what is no page.
s,\[([^]]*)\]\(((\.\./)?(examples|include|cmake)/[^)]*|LICENSE|performance|decisions)\),\1,g

# Doxygen gives headings other anchors than others do, and takes a quote in `code` for its end.
s,\[([^]]*)\]\(#[^)]*\),\1,g
/^### /s,`,``,g
