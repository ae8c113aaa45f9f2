import { sessionHandlers } from '@session-manager/react/next';

export const { GET, POST, PATCH, DELETE } = sessionHandlers();
