import { Box, Chip, IconButton, Link, Paper, Table, TableBody, TableCell, TableHead, TableRow, Tooltip, Typography } from '@mui/material';
import { formatDistanceToNowStrict } from 'date-fns';
import DeleteOutline from 'mdi-material-ui/DeleteOutline';
import { Link as RouterLink } from 'react-router-dom';
import type { ReactNode } from 'react';

export interface Row {
  name: string;
  /** Shown instead of the name. */
  title?: string;
  /** Shown beside the name. */
  detail?: ReactNode;
  tags?: string[];
  updatedAt?: string;
  /** Where the name leads: an address of this app, or an action. */
  open: string | (() => void);
}

interface ResourceTableProps {
  rows: Row[];
  empty: string;
  onDelete?: (name: string) => void;
}

// The server's "never" is the year 1.
const isDate = (text?: string): text is string => text !== undefined && Date.parse(text) > 0;

function Updated({ at }: { at?: string }) {
  if (!isDate(at)) return null;
  return (
    <Tooltip title={new Date(at).toLocaleString()}>
      <span>{formatDistanceToNowStrict(new Date(at), { addSuffix: true })}</span>
    </Tooltip>
  );
}

function Name({ row: { name, title = name, open } }: { row: Row }) {
  const style = { fontWeight: 700 };
  return typeof open === 'string' ? (
    <Link component={RouterLink} to={open} underline="hover" sx={style} title={name}>{title}</Link>
  ) : (
    <Link component="button" onClick={open} underline="hover" sx={style} title={name}>{title}</Link>
  );
}

/** Named things of one kind, with what is known of each. */
export function ResourceTable({ rows, empty, onDelete }: ResourceTableProps) {
  if (rows.length === 0) {
    return (
      <Paper variant="outlined" sx={{ p: 4, textAlign: 'center' }}>
        <Typography color="text.secondary">{empty}</Typography>
      </Paper>
    );
  }
  return (
    <Paper variant="outlined" sx={{ overflow: 'hidden' }}>
      <Table size="small" sx={{ '& tr:last-child td': { borderBottom: 0 }, '& td, & th': { py: 1 } }}>
        <TableHead sx={{ bgcolor: 'action.hover' }}>
          <TableRow>
            <TableCell>Name</TableCell>
            <TableCell />
            <TableCell align="right" sx={{ width: 160 }}>Updated</TableCell>
            {onDelete && <TableCell sx={{ width: 56 }} />}
          </TableRow>
        </TableHead>
        <TableBody>
          {rows.map((row) => (
            <TableRow key={row.name} hover>
              <TableCell><Name row={row} /></TableCell>
              <TableCell sx={{ color: 'text.secondary' }}>
                <Box sx={{ display: 'flex', gap: 0.5, alignItems: 'center', flexWrap: 'wrap' }}>
                  {row.detail}
                  {row.tags?.map((tag) => <Chip key={tag} label={tag} size="small" variant="outlined" />)}
                </Box>
              </TableCell>
              <TableCell align="right" sx={{ color: 'text.secondary', whiteSpace: 'nowrap' }}><Updated at={row.updatedAt} /></TableCell>
              {onDelete && (
                <TableCell align="right">
                  <IconButton size="small" aria-label={`Delete ${row.name}`} onClick={() => onDelete(row.name)}>
                    <DeleteOutline fontSize="small" />
                  </IconButton>
                </TableCell>
              )}
            </TableRow>
          ))}
        </TableBody>
      </Table>
    </Paper>
  );
}
