"""The Streamlit pages: widgets and one service call each."""
