"""ToolRet: finding the right tools for a task among thousands."""
